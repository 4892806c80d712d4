"""Clients whose every byte is known: what they send (`exchange`), and when (`client`)."""
