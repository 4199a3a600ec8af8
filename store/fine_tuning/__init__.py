"""What a fine-tuning job is: its data, its settings and how it is graded."""
