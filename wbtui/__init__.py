"""wbtui: what sparse-autoencoder features do, read from the weights alone, in a terminal."""

__version__ = "0.1.0"
