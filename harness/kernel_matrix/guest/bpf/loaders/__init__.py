"""Loaders: one module for each way to load an object (libbpf now; others keep the same contract)."""
