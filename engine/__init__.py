"""Pure computation of learning: arrays in, arrays out. Knows no storage, wire format or clock."""
