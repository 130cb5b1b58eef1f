"""Text that breaks screens, through everything that shows or writes text."""
