"""Times, memory and what the hardware would allow."""
