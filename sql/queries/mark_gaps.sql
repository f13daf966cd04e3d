SELECT mark_gaps()
