"""What surrounds the gateway: what is there, and what will bite. Looks, and changes nothing."""
