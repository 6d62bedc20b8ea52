package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// The contenders, as the columns of the table are called.
const (
	Riposte   = "riposte"
	Asynq     = "asynq"
	Watermill = "watermill"
	Python    = "python"
	Floor     = "floor"
)

var columns = []string{Riposte, Asynq, Watermill, Python, Floor}

// Report is one run.
type Report struct {
	Machine Machine `json:"machine"`
	Rows    []Row   `json:"rows"`
}

// Row is one measurement in one setting.
type Row struct {
	Measurement string               `json:"measurement"`
	Setting     string               `json:"setting"`
	Unit        string               `json:"unit"`
	Rounds      map[string][]float64 `json:"rounds"` // by contender; what is printed is their median
	Medians     map[string]float64   `json:"medians"`
	Capped      map[string]bool      `json:"capped,omitempty"` // given up at this value: it would be more
	Ratios      map[string]float64   `json:"ratios,omitempty"` // ours to theirs
	Goals       []Goal               `json:"goals,omitempty"`
	Notes       map[string]string    `json:"notes,omitempty"` // what bounds a contender; of the last round
}

// Goal is what the medians are held against.
type Goal struct {
	Text  string  `json:"text"`
	Value float64 `json:"value"` // reached
	Met   bool    `json:"met"`
	Short float64 `json:"short,omitempty"` // by how much it was missed, 0 to 1
}

func (r *Row) add(contender string, value float64) {
	if r.Rounds == nil {
		r.Rounds, r.Medians = map[string][]float64{}, map[string]float64{}
	}
	r.Rounds[contender] = append(r.Rounds[contender], value)
	r.Medians[contender] = median(r.Rounds[contender])
}

func (r *Row) note(contender, text string) {
	if r.Notes == nil {
		r.Notes = map[string]string{}
	}
	r.Notes[contender] = text
}

// capped says that a contender was given up at its value.
func (r *Row) capped(contender string, capped bool) {
	if r.Capped == nil {
		r.Capped = map[string]bool{}
	}
	r.Capped[contender] = capped
}

// compare writes down ours in relation to theirs.
func (r *Row) compare(others ...string) {
	r.Ratios = map[string]float64{}
	for _, other := range others {
		if theirs, ok := r.Medians[other]; ok && theirs != 0 {
			r.Ratios[other] = r.Medians[Riposte] / theirs
		}
	}
}

// want is a goal before it is judged. most says that less is better.
type want struct {
	text  string
	other string // whose multiple is wanted; empty for a value as such
	value float64
	most  bool
}

func times(other string, x float64) want {
	return want{fmt.Sprintf(">= %gx %s", x, other), other, x, false}
}
func within(other string, x float64) want {
	return want{fmt.Sprintf("<= %.3gx %s", x, other), other, x, true}
}
func (r *Row) atMost(x float64) want { return want{fmt.Sprintf("<= %g %s", x, r.Unit), "", x, true} }

func (r *Row) goals(wants ...want) {
	for _, w := range wants {
		value := r.Medians[Riposte]
		if w.other != "" {
			value /= r.Medians[w.other]
		}
		r.Goals = append(r.Goals, w.judge(value))
	}
}

func (w want) judge(value float64) Goal {
	g := Goal{Text: w.text, Value: value, Met: value >= w.value}
	if w.most {
		g.Met = value <= w.value
	}
	if !g.Met {
		g.Short = math.Abs(value-w.value) / math.Max(w.value, 1e-9)
	}
	return g
}

func (g Goal) String() string {
	if g.Met {
		return g.Text + ": met"
	}
	return fmt.Sprintf("%s: misses by %.0f %%", g.Text, 100*g.Short)
}

// Markdown prints the table.
func (r Report) Markdown(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", r.Machine)
	fmt.Fprintf(w, "| measurement | setting | unit | %s | ratio | goal |\n", strings.Join(columns, " | "))
	fmt.Fprintf(w, "|---|---|---|%s---|---|\n", strings.Repeat("---:|", len(columns)))
	for _, row := range r.Rows {
		cells := []string{row.Measurement, row.Setting, row.Unit}
		for _, c := range columns {
			cells = append(cells, row.cell(c))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(append(cells, row.ratios(), row.verdicts()), " | "))
	}
	for _, row := range r.Rows {
		for _, c := range columns {
			if note := row.Notes[c]; note != "" {
				fmt.Fprintf(w, "\n- %s, %s, %s: %s", row.Measurement, row.Setting, c, note)
			}
		}
	}
	fmt.Fprintln(w)
}

func (r Row) cell(contender string) string {
	value, ok := r.Medians[contender]
	switch {
	case !ok:
		return ""
	case r.Capped[contender]:
		return "> " + number(value)
	}
	return number(value)
}

func (r Row) ratios() string {
	var words []string
	for _, c := range columns {
		if x, ok := r.Ratios[c]; ok {
			words = append(words, fmt.Sprintf("%sx %s", number(x), c))
		}
	}
	return strings.Join(words, ", ")
}

func (r Row) verdicts() string {
	words := make([]string, len(r.Goals))
	for i, g := range r.Goals {
		words[i] = g.String()
	}
	return strings.Join(words, "; ")
}

// number writes three digits that count, and thousands apart.
func number(x float64) string {
	if x <= 0 {
		return fmt.Sprint(x)
	}
	digits := 2 - int(math.Floor(math.Log10(x)))
	if digits > 0 {
		return fmt.Sprintf("%.*f", digits, x)
	}
	scale := math.Pow10(-digits)
	text := fmt.Sprintf("%.0f", math.Round(x/scale)*scale)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
