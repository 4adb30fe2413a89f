"""Message bodies that do not travel in their documents."""
