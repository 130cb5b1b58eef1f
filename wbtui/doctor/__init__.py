"""``wbtui doctor``: what works here and what does not, each with what was found and what to do."""
