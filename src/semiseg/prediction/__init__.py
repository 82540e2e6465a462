"""From scans to label files, on each file's own grid."""
