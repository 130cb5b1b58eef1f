"""Pure drawing: from numbers to lines of (text, role). No widget, no terminal."""
