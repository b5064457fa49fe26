"""The version of this package, which every call carries."""

__version__ = "0.1.0"
