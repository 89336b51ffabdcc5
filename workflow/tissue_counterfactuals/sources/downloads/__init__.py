"""Everything that a download needs, whatever is downloaded: transfer, checks, lock, copies, progress."""
