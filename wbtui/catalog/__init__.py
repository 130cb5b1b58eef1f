"""What models and SAEs there are, what they are made of, and which products they lead to. Standard library only."""
