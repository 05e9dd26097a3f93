"""Which labels are wrong: beliefs about every label, from all the others."""
