"""The experiment service and its junction with the recommender. Statistics belong to the engine."""
