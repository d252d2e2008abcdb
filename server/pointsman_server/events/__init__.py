"""Changes after their commit: relay to Kafka, consumers, the feed of this process."""
