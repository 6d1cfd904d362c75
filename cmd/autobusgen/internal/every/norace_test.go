//go:build !race

package every

const raceEnabled = false
