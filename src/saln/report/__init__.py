"""What a run says, as tables, figures and one page."""
