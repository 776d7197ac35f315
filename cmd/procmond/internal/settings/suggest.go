package settings

import (
	"fmt"
	"strings"
)

// didYouMean returns ": did you mean X?" for the candidate nearest to what was
// given, or nothing if none is near.
func didYouMean(given string, candidates []string) string {
	const longest = 64
	if len(given) > longest {
		return ""
	}
	best, nearest := "", 1+min(3, len(given)/3)
	for _, c := range candidates {
		if d := distance(fold(given), fold(c)); d < nearest {
			best, nearest = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance is the number of bytes to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
