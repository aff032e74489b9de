package main

import (
	"context"
	"fmt"
	"slices"
)

// variant is one way to do some work. A round gives figures, the same ones in the same order for all variants.
type variant struct {
	name  string
	round func(context.Context) ([]float64, error)
}

// series are a variant's figures: series[figure][round].
type series [][]float64

// spread is a median with the extremes around it.
type spread struct{ median, least, most float64 }

// alternate runs the variants in turn, in another order each time, so that what changes on the machine meanwhile meets all of them.
func alternate(ctx context.Context, rounds int, variants ...variant) ([]series, error) {
	all := make([]series, len(variants))
	for n := range rounds {
		for i := range variants {
			v := (i + n) % len(variants)
			figures, err := variants[v].round(ctx)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, fmt.Errorf("round %d of %s: %w", n+1, variants[v].name, err)
			}
			if all[v] == nil {
				all[v] = make(series, len(figures))
			}
			for f := range figures {
				all[v][f] = append(all[v][f], figures[f])
			}
		}
	}
	return all, nil
}

func median(values []float64) float64 { return spreadOf(values).median }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{median: (sorted[n/2] + sorted[(n-1)/2]) / 2, least: sorted[0], most: sorted[n-1]}
}

// ratios compares round by round.
func ratios(a, b []float64) spread {
	each := make([]float64, len(a))
	for i := range a {
		each[i] = a[i] / b[i]
	}
	return spreadOf(each)
}

// against makes a row of one figure of ours and the floor's.
func against(what, unit string, ours, floor []float64, g goal) row {
	return row{what: what, unit: unit, floor: median(floor), ours: median(ours), ratio: ratios(ours, floor), goal: g}
}

// beside adds what one would use instead; factor brings its figures to the row's unit.
func (r row) beside(rival []float64, factor float64) row {
	r.rival = median(rival) * factor
	return r
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
