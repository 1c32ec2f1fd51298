"""What a report shows of one or several runs: tables, plots, example transcripts."""
