"""What a model costs on a chip, estimated from the schedule that the chip's own compiler writes."""
