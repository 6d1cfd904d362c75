//go:build unix

package main

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/autobus-go/autobus/bench/row"
)

const rate = "events/s" // the unit of what is plotted

// plot draws the rows of throughput as bars, those of a part and size together.
func plot(rows []row.Row) []byte {
	type bar struct {
		name  string
		value float64
	}
	var titles []string
	groups := make(map[string][]bar)
	for _, r := range rows {
		if r.Unit != rate {
			continue
		}
		title := r.Part + ", " + r.What
		if groups[title] == nil {
			titles = append(titles, title)
			groups[title] = []bar{{ours, r.Ours}}
		}
		groups[title] = append(groups[title], bar{r.Peer, r.Theirs})
	}
	const (
		left, width, thick, line = 190, 440, 16, 22
		total                    = left + width + 110
	)
	height := 10
	for _, title := range titles {
		height += 40 + line*len(groups[title])
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", total, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", total, height)
	y := 10
	for _, title := range titles {
		bars := groups[title]
		slices.SortStableFunc(bars, func(a, b bar) int {
			if a.value > b.value {
				return -1
			}
			return 1
		})
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold" fill="#222">%s, %s</text>`+"\n", y+18, escape(title), rate)
		y += 28
		for _, r := range bars {
			color := "#9aa7b5"
			if r.name == ours {
				color = "#1f77b4"
			}
			long := max(1, int(r.value/bars[0].value*width))
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#222">%s</text>`, left-8, y+13, escape(r.name))
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`, left, y, long, thick, color)
			fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#222">%s</text>`+"\n", left+long+6, y+13, number(r.value))
			y += line
		}
		y += 12
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func escape(text string) string {
	for _, c := range [][2]string{{"&", "&amp;"}, {"<", "&lt;"}} {
		text = string(bytes.ReplaceAll([]byte(text), []byte(c[0]), []byte(c[1])))
	}
	return text
}
