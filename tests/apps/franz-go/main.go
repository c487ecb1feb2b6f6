// franz-go as an application, by the contract of tests/apps/journal.py: BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS INSTANCE.
// PROTOCOL is an assignor of the classic protocol, or consumer (KIP-848).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	handleTime         = 2 * time.Millisecond
	commitAfterRecords = 20
	commitAfterTime    = 300 * time.Millisecond
	pollTime           = 100 * time.Millisecond
	commitTimeMax      = 10 * time.Second
)

// app is one member. Rebalances wait for the poll loop (BlockRebalanceOnPoll), so nothing of it is shared between threads.
type app struct {
	member, topic string
	client        *kgo.Client
	uncommitted   map[int32]kgo.EpochOffset
	count         int
	since         time.Time
}

func (a *app) say(event string, more map[string]any) {
	line := map[string]any{"m": a.member, "e": event}
	for key, value := range more {
		line[key] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

// commit is of all partitions, or of these.
func (a *app) commit(partitions []int32) {
	if partitions == nil {
		for partition := range a.uncommitted {
			partitions = append(partitions, partition)
		}
	}
	offsets, told := map[int32]kgo.EpochOffset{}, map[string]int64{}
	for _, partition := range partitions {
		if offset, found := a.uncommitted[partition]; found {
			offsets[partition], told[strconv.Itoa(int(partition))] = offset, offset.Offset
		}
	}
	a.count, a.since = 0, time.Now()
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeMax)
	defer cancel()
	if err := a.commitAll(ctx, offsets); err != nil {
		a.say("refused", map[string]any{"o": told, "why": err.Error()})
		return
	}
	for partition := range offsets {
		delete(a.uncommitted, partition)
	}
	a.say("committed", map[string]any{"o": told})
}

func (a *app) commitAll(ctx context.Context, offsets map[int32]kgo.EpochOffset) error {
	var first error
	a.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{a.topic: offsets}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		first = err
		for at := 0; first == nil && at < len(answer.Topics); at++ {
			for _, partition := range answer.Topics[at].Partitions {
				first = errors.Join(first, kerr.ErrorForCode(partition.ErrorCode))
			}
		}
	})
	return first
}

func (a *app) givenUp(event string, partitions []int32) {
	for _, partition := range partitions {
		delete(a.uncommitted, partition)
	}
	a.say(event, map[string]any{"p": numbers(partitions)})
}

func numbers(partitions []int32) []int32 {
	return append([]int32{}, partitions...)
}

func (a *app) options(bootstrap, group, protocol string, session time.Duration) ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.ClientID(a.member), kgo.ConsumerGroup(group), kgo.ConsumeTopics(a.topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(pollTime), kgo.SessionTimeout(session), kgo.HeartbeatInterval(session / 6),
		kgo.MetadataMaxAge(time.Second), kgo.MetadataMinAge(100 * time.Millisecond), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, c *kgo.Client, got map[string][]int32) {
			id, generation := c.GroupMetadata()
			a.say("assigned", map[string]any{"p": numbers(got[a.topic]), "g": generation, "id": id})
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			a.commit(numbers(gone[a.topic]))
			a.givenUp("revoked", gone[a.topic])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { a.givenUp("lost", gone[a.topic]) }),
	}
	switch protocol {
	case "range":
		return append(opts, kgo.Balancers(kgo.RangeBalancer())), nil
	case "cooperative-sticky":
		return append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer())), nil
	case "consumer":
		return append(opts, kgo.ServerSideBalancer()), nil
	}
	return nil, fmt.Errorf("no protocol %s", protocol)
}

func run() error {
	if len(os.Args) != 8 || os.Args[7] != "" {
		return errors.New("usage: BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS, no INSTANCE")
	}
	session, err := strconv.Atoi(os.Args[6])
	if err != nil {
		return err
	}
	a := &app{member: os.Args[5], topic: os.Args[2], uncommitted: map[int32]kgo.EpochOffset{}, since: time.Now()}
	opts, err := a.options(os.Args[1], os.Args[3], os.Args[4], time.Duration(session)*time.Millisecond)
	if err != nil {
		return err
	}
	if a.client, err = kgo.NewClient(opts...); err != nil {
		return err
	}
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for stopping.Err() == nil {
		turn, cancel := context.WithTimeout(stopping, pollTime)
		fetches := a.client.PollRecords(turn, commitAfterRecords)
		cancel()
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				fmt.Fprintln(os.Stderr, err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			time.Sleep(handleTime)
			a.say("handled", map[string]any{"p": r.Partition, "o": r.Offset, "v": string(r.Value)})
			a.uncommitted[r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
			a.count++
		})
		if len(a.uncommitted) == 0 {
			a.since = time.Now()
		}
		if a.count >= commitAfterRecords || time.Since(a.since) >= commitAfterTime {
			a.commit(nil)
		}
		a.client.AllowRebalance()
	}
	a.client.CloseAllowingRebalance()
	a.say("closed", nil)
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
