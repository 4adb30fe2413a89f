"""May this client, this sender, this recipient go on? One reply per question."""
