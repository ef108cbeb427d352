"""The services of `genie.v1`, one class each. A method decodes, reads, computes, records and encodes."""
