"""The samples of a run, and medians over its rounds."""
import statistics

SPREAD_ROUNDS = 4


class Results:
    def __init__(self):
        self.samples = []       # one dictionary for each value
        self.series = []        # one for each sample that has a course in time
        self.left_out = {}      # (job, system): why
        self.broken = []        # one dictionary for each measurement that failed

    def add(self, number, job, system, figures):
        for figure, value in figures.items():
            if isinstance(value, list):
                self.series.append({"round": number, "job": job, "system": system, "series": figure, "values": value})
                continue
            self.samples.append({"round": number, "job": job, "system": system, "figure": figure, "value": value})

    def values(self, job, figure, system):
        """{round: value}"""
        wanted = (job, figure, system)
        return {sample["round"]: sample["value"] for sample in self.samples
                if (sample["job"], sample["figure"], sample["system"]) == wanted}

    def median(self, job, figure, system):
        values = self.values(job, figure, system)
        return statistics.median(values.values()) if values else None

    def ratio(self, job, figure, system, reference, reference_job=None):
        """Median of the ratios within each round to the REFERENCE system."""
        ratios = self.ratios(job, figure, system, reference, reference_job)
        return statistics.median(ratios) if ratios else None

    def ratios(self, job, figure, system, reference, reference_job=None):
        values = self.values(job, figure, system)
        references = self.values(reference_job or job, figure, reference)
        return [value / references[number] for number, value in values.items() if references.get(number)]

    def spread(self, job, figure, system, reference):
        """The quartiles of these ratios; None where there are too few."""
        ratios = self.ratios(job, figure, system, reference)
        if len(ratios) < SPREAD_ROUNDS:
            return None
        low, _, high = statistics.quantiles(ratios, n=4)
        return low, high

    def figures(self):
        """Each figure that was measured, in the order of the first samples."""
        return list(dict.fromkeys(sample["figure"] for sample in self.samples))

    def systems(self):
        return list(dict.fromkeys(sample["system"] for sample in self.samples))

    def has(self, job, figure):
        return any(sample["job"] == job and sample["figure"] == figure for sample in self.samples)
