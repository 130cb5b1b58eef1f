"""``wbtui check``: our weight formulas against one forward pass of the real model.

The only place that builds a language model.
"""
