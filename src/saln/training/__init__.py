"""Learners, the loop that trains them, and the ledger of where the time went."""
