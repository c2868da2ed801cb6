"""The FSD computer's neural processors: a driver interface with a C ABI, and an emulator behind the same interface."""
