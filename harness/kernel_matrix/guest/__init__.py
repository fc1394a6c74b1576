"""The part of the engine that runs inside the VM; of the host's part it imports only errors and pure data."""
