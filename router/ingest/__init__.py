"""Takes in what peers send: Storage and Verification as SCP (PS3.4 annexes A and B)."""
