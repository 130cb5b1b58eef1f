"""What others found about an SAE's features, from files: labels and densities. Data, never weights; never fetched."""
