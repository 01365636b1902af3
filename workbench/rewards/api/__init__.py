"""How a reward is written and read: the decorator, accepted signatures, where its code comes from, what its result means."""
