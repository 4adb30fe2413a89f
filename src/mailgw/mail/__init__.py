"""What we know of a mail and of who sent it: plain, frozen data."""
