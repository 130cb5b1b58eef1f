"""The embedded demo: a tiny Gemma-2 trained on WordNet, SAEs for every layer, their licence and training record."""

from pathlib import Path

DEMO_DIR = Path(__file__).parent
