"""Widgets: each draws what it is given, line by line, and owns nothing."""
