"""Watch: the changes of the feed, fanned out to the streams of this process."""
