"""What would more pictures buy? Trainings at growing fractions."""
