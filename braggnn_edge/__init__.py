"""Detector frames to a trained float BraggNN: scans, labels, patches, training, evaluation and report.

Positions are ``(row, col)`` in pixels with the centre of pixel (0, 0) at (0.0, 0.0); widths are FWHM in pixels.
"""

__version__ = "0.1.0"
