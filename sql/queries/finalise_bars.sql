SELECT finalise_bars()
