"""How soon a pile of work ends on several limited keys, measured against the soonest that arithmetic allows."""
