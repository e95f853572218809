"""A billing run at the end of a month: a charge for each customer, with retries, and one total."""
