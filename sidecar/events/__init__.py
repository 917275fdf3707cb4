"""What the meeting service must hear of: accepted, kept, delivered."""
