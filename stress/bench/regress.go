package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// checkRegress reads the output of benchstat -format csv for two versions and prints
// the differences. It returns an error if a benchmark became worse by more than most
// percent. benchstat reports only differences that are statistically significant.
func checkRegress(in io.Reader, out io.Writer, most float64) error {
	var worse []string
	compared := 0
	unit := ""
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "Unit") {
			continue
		}
		fields, err := csv.NewReader(strings.NewReader(line)).Read()
		if err != nil || len(fields) < 7 {
			continue // for example goos: linux
		}
		// ,sec/op,CI,sec/op,CI,vs base,P and below it NAME,1e-05,2%,2e-05,3%,+100.00%,p=0.001 n=10
		if fields[0] == "" {
			if fields[5] == "vs base" {
				unit = fields[1]
			}
			continue
		}
		name, change := fields[0], fields[5]
		if unit == "" || name == "geomean" || change == "" {
			continue
		}
		compared++
		percent, err := strconv.ParseFloat(strings.TrimSuffix(change, "%"), 64)
		if err != nil {
			continue // ~, which is not significant
		}
		is := "better"
		if bad := percent > 0; bad != moreIsBetter(unit) {
			is = "worse"
		}
		fmt.Fprintf(out, "%s: %s is %s by %s (%s)\n", is, name, unit, change, fields[6])
		if is == "worse" && max(percent, -percent) > most {
			worse = append(worse, fmt.Sprintf("%s %s %s", name, unit, change))
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if compared == 0 {
		return errors.New("nothing was compared: the versions have no benchmark in common")
	}
	fmt.Fprintf(out, "%d comparisons\n", compared)
	if len(worse) > 0 {
		return fmt.Errorf("worse by more than %g%%:\n  %s", most, strings.Join(worse, "\n  "))
	}
	return nil
}

// moreIsBetter reports whether more is better, as for pairs/s, unlike for ns/op.
func moreIsBetter(unit string) bool { return strings.HasSuffix(unit, "/s") }
