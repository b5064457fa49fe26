package agent

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// Steps are often idle, so there are more slots than CPUs.
const (
	slotsPerCPU = 4
	minSlots    = 32
)

// measured fills what is not set with what the machine has.
func (c Capacity) measured() Capacity {
	cpus := int32(min(runtime.GOMAXPROCS(0), math.MaxInt32/1000))
	if c.MilliCPU == 0 {
		c.MilliCPU = cpus * 1000
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = memoryMiB()
	}
	if c.Slots == 0 {
		c.Slots = max(slotsPerCPU*cpus, minSlots)
	}
	return c
}

// memoryMiB is the machine's memory, or what the agent's container may use of it.
func memoryMiB() int32 {
	total := uint64(math.MaxUint64)
	if m, err := mem.VirtualMemory(); err == nil {
		total = m.Total
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err == nil {
			total = min(total, limit)
		}
	}
	return int32(min(total>>20, math.MaxInt32))
}

func (c Capacity) toProto() *hwpv1.Capacity {
	return &hwpv1.Capacity{MilliCpu: c.MilliCPU, MemoryMib: c.MemoryMiB, Extras: c.Extras, Slots: c.Slots}
}

// load measures what the whole machine does.
type load struct {
	mu   sync.Mutex
	last cpu.TimesStat
	at   time.Time
}

// heartbeat returns the CPU in use since the last call and the memory in use now.
func (l *load) heartbeat() *hwpv1.Heartbeat {
	l.mu.Lock()
	defer l.mu.Unlock()
	beat := &hwpv1.Heartbeat{}
	now := time.Now()
	if times, err := cpu.Times(false); err == nil && len(times) == 1 {
		if seconds := now.Sub(l.at).Seconds(); !l.at.IsZero() && seconds > 0 {
			used := (busy(times[0]) - busy(l.last)) / seconds * 1000
			beat.UsedMilliCpu = int32(min(max(used, 0), math.MaxInt32))
		}
		l.last, l.at = times[0], now
	}
	if m, err := mem.VirtualMemory(); err == nil {
		beat.UsedMemoryMib = int32(min(m.Used>>20, math.MaxInt32))
	}
	return beat
}

func busy(t cpu.TimesStat) float64 {
	return t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
}
