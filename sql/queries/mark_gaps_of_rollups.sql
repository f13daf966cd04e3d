SELECT mark_gaps_of_rollups()
