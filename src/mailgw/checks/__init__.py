"""Evidence about a received message: one Finding after the other, and never a refusal."""
