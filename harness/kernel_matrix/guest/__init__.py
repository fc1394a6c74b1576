"""What runs inside the VM; imports nothing of the host side but errors and pure data."""
