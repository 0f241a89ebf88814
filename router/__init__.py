"""dcmrouter: a DICOM router and gateway.  See docs/architecture.md for the floors."""

__version__ = "0.1.0"
